"""Long work: jobs cut in slices, held by leases, that survive any process."""

"""What a Kith process tells about itself: logs, metrics, traces."""

"""What is measured against what: ``make bench [AREA=..]``. Nothing in the tests depends on a time."""

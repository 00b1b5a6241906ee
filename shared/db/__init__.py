"""PostgreSQL: the truth. Tables by owner, the unit of work, pages, replay protection and the outbox."""

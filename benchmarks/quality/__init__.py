"""What models are worth on real data, beside what a user would pick instead: read data, protocol, floors, then main."""

"""A spec becomes a run folder; several runs become one."""

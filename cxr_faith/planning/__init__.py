"""What a run will cost, before it starts: passes, GPU-hours, memory, disk, and how many patients a difference needs."""

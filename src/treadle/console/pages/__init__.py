"""The pages, one file each: what they show, as a view that is also their JSON, and what they do."""

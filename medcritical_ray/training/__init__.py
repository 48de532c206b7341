"""SFT and DPO as plain functions over a model and records; they run on a bare machine, and on Ray Train's workers."""

"""What `jobs.chaos` plays runs with: the driver that is killed, a lookout, one trial, and the stage for all of them."""

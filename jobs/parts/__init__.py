"""What commands are made of: their options, what a person is shown, and the cluster that they run on."""

"""Ray at the edge: thin actors around the plain classes of `medcritical_ray`, their pools, and Ray Train."""

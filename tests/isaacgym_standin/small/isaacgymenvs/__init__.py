"""A small package in IsaacGymEnvs' shape, for tests that run without a checkout of it: our tasks, its interface."""

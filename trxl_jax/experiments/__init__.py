"""Many runs: experiments by name, each over several seeds."""

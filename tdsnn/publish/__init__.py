"""From a finished run to a release, and from there to a commit on a Hub."""

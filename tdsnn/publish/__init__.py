"""From a release to a commit on a Hub."""

"""The `airgate` command: run the gate here, check and publish its policy, deploy it."""

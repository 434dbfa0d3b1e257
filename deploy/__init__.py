"""What people and schedulers start: the command line, and later deployments, automations and images.

Here belongs nothing that another package needs.
"""

"""What is true of the data and of a run: settings, contracts, expectation suites, run specs.

Here belong frozen pydantic models, names, typed errors and declared contracts. Here does not belong anything that
reads, writes or computes: `storage` moves bytes, `models` does the maths.

Where do I go to ...?

=====================================  =========================
change what a config file may say       `schemas.spec`
change what the environment may say     `schemas.settings`
know what a cube or a version holds     `schemas.contracts`
declare a data-quality check            `schemas.checks`
know what one step hands to the next    `schemas.refs`
raise an error that a user understands  `schemas.errors`
=====================================  =========================
"""

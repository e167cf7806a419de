"""The library inside an application: `from lastcall import Lifecycle`.

Standard library only, and nothing of the rest of lastcall but its errors: whoever imports it pays
for what he uses.
"""

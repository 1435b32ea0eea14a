"""Values in, values out: no network, no privileges, no sleep; a mirror of the package."""

from hypothesis import settings

# An example that takes its time says how busy the machine is, not that the code is wrong.
settings.register_profile(
    "unit", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("unit")

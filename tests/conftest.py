"""Settings shared by all tests."""

from hypothesis import HealthCheck, settings

# Compilation makes a first example slow; that is no sign of a bad strategy.
settings.register_profile("jaxcolor", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("jaxcolor")

"""Numbers for what no errno shows."""

import errno

from userspace_proxy.model.error_numbers import (
    FROM_ENDPOINT,
    LOSSES,
    NOT_TO_CLIENT,
    NOT_TO_ENDPOINT,
    OWN_ROUTES,
)


def test_each_reason_has_a_number_of_its_own():
    own = [NOT_TO_ENDPOINT, FROM_ENDPOINT, NOT_TO_CLIENT, *OWN_ROUTES.values()]
    assert len(set(own)) == len(own) == len(LOSSES) + len(OWN_ROUTES)


def test_no_end_of_a_connection_and_no_failed_dial_has_a_number_of_these():
    ends = {errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED, errno.EINVAL}
    assert (LOSSES | set(OWN_ROUTES.values())).isdisjoint({*ends, *OWN_ROUTES})

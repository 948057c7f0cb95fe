"""The first group of each way in which the compiler writes groups."""

import pytest

from asyppo_jax.planning.replica_groups import first_group, group_size


@pytest.mark.parametrize(
    ("groups", "first"),
    [
        ("{{0,1},{2,3}}", [0, 1]),
        ("{{0,2,4,6},{1,3,5,7}}", [0, 2, 4, 6]),
        ("[2,4]<=[8]", [0, 1, 2, 3]),
        ("[4,2]<=[2,4]T(1,0)", [0, 4]),
        ("mesh['data'=2,'model'=4] {'model'}", [0, 1, 2, 3]),
        ("mesh['data'=2,'model'=4] {'data'}", [0, 4]),
        ("mesh['data'=2,'model'=4] {'data','model'}", list(range(8))),
        ("mesh['data'=2,'model'=4] {}", list(range(8))),
        ("mesh['data'=2,'model'=4] {'model':(2)2}", [0, 1]),
        ("mesh['data'=2,'model'=4] {'model':(1)2}", [0, 2]),
        ("mesh['data'=2,'model'=4] {'data','model':(1)2}", [0, 2, 4, 6]),
    ],
)
def test_the_first_group_has_these_devices(groups, first):
    text = f"%p), channel_id=1, replica_groups={groups}, use_global_device_ids=true"
    assert first_group(text, 8) == first and group_size(text) == len(first)


def test_without_groups_it_is_all_devices_and_the_size_is_not_known():
    assert first_group("%p), channel_id=1", 3) == [0, 1, 2] and group_size("%p)") == 0

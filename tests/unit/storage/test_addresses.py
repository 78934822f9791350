"""Which addresses may be called that somebody else named."""

from __future__ import annotations

import pytest

from truekeep.storage.addresses import AddressRefusedError, NoAddressError, callable_addresses, looked_up, refusal


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "fe80::1%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
    ],
)
def test_addresses_of_the_machine_itself_are_refused(address: str) -> None:
    assert refusal(address)
    with pytest.raises(AddressRefusedError, match="name another address"):
        callable_addresses("innocent.example.com", 80, lambda host, port: [address])


@pytest.mark.parametrize("address", ["10.244.0.7", "192.168.1.4", "172.16.0.9", "93.184.216.34", "fd12::7", "2606::1"])
def test_services_in_and_out_of_the_cluster_may_be_called(address: str) -> None:
    assert callable_addresses("alerts.example.com", 443, lambda host, port: [address]) == [address]


def test_one_bad_address_among_good_ones_is_enough() -> None:
    with pytest.raises(AddressRefusedError, match=r"169\.254\.169\.254"):
        callable_addresses("x.example.com", 80, lambda host, port: ["10.0.0.1", "169.254.169.254"])


@pytest.mark.parametrize("written", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"])
def test_odd_ways_to_write_an_address_lead_where_the_resolver_says(written: str) -> None:
    try:
        found = looked_up(written, 80)
    except NoAddressError:
        return
    assert all(refusal(address) for address in found)


def test_a_name_that_leads_nowhere_is_said() -> None:
    with pytest.raises(NoAddressError, match="has no address"):
        callable_addresses("x.example.com", 80, lambda host, port: [])

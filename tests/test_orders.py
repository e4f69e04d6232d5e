from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.revocation.orders import CAPACITY, FOR_ONE, KEPT, RevocationOrders
from tests.coordinators import DC2, DESK, LAPTOP, PHONE, TABLET


class OrderTests(SynchronousTestCase):
    def test_until_acknowledged(self) -> None:
        """R34: an order stands until its client has acknowledged it."""
        orders = RevocationOrders()
        orders.add(PHONE, LAPTOP, 0.0)
        orders.add(PHONE, DESK, 0.0)
        orders.add(PHONE, LAPTOP, 1.0)
        self.assertEqual(orders.of(PHONE, 2.0), (DESK, LAPTOP))
        orders.acknowledged(PHONE, DESK)
        orders.acknowledged(TABLET, DESK)
        self.assertEqual((orders.of(PHONE, 2.0), len(orders)), ((LAPTOP,), 1))
        orders.forget(PHONE)
        orders.forget(PHONE)
        self.assertEqual((orders.of(PHONE, 2.0), len(orders)), ((), 0))

    def test_a_day(self) -> None:
        """R20, R34: after a day certificates have ended, and so have orders."""
        orders = RevocationOrders()
        orders.add(PHONE, LAPTOP, 0.0)
        orders.handle_timer(KEPT - 1.0)
        self.assertEqual(len(orders), 1)
        self.assertEqual(orders.of(PHONE, KEPT), ())
        orders.handle_timer(KEPT)
        self.assertEqual(len(orders), 0)

    def test_bounded(self) -> None:
        """Orders of one client, and of all, are bounded; the oldest go."""
        orders = RevocationOrders()
        for number in range(FOR_ONE + 10):
            orders.add(PHONE, f"d{number}.bob.{DC2}", 0.0)
        self.assertEqual(len(orders), FOR_ONE)
        self.assertNotIn(f"d9.bob.{DC2}", orders.of(PHONE, 0.0))
        for number in range(CAPACITY):
            orders.add(f"d{number}.bob.{DC2}", PHONE, 0.0)
        self.assertEqual(len(orders), CAPACITY)
        self.assertEqual(orders.of(PHONE, 0.0), ())

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ntmobile.machines.effects import Address
from ntmobile.machines.signalling.registration import (
    PATIENCE,
    Rebound,
    Registered,
    Silent,
    State,
)
from ntmobile.machines.signalling.requests import Answered, Asked, TimedOut
from ntmobile.machines.signalling.session import Lost
from ntmobile.machines.signalling.table import ClientAnswered
from ntmobile.wire.messages.fields import Endpoint, Location
from ntmobile.wire.messages.realtime import (
    Acknowledgement,
    Deregistration,
    NotificationRequest,
    PolicyRequest,
    RegistrationRequest,
    RouteDirectionRequest,
)
from tests.realms import MemoryRealm
from tests.registration_world import (
    CAFE,
    CAFE4,
    CAFE6,
    FQDN,
    HOME,
    HOME4,
    HOME6,
    Nat,
    World,
)
from tests.signalling import DC4, INDEX


class RegistrationCase(SynchronousTestCase):
    """Makes worlds."""

    realm = MemoryRealm()

    def world(self, seed: int = 0, **settings: float) -> World:
        """A world that has not started."""
        world = World(self.realm, seed)
        for name, value in settings.items():
            setattr(world, name, value)
        return world


class RegisteringTests(RegistrationCase):
    def test_both_families(self) -> None:
        """Each family is registered from its own socket, and both ends know how it is seen."""
        world = self.world()
        world.start()
        self.assertIs(world.registration.state, State.REGISTERED)
        nat = Endpoint.of(("198.51.100.1", 50_000))
        six = Endpoint.of(HOME6)
        self.assertEqual(world.registration.observed, {4: (nat, True), 6: (six, False)})
        self.assertEqual(
            world.location, Location(1000, (nat, six), (Endpoint.of(HOME4), six), (4,))
        )
        registered = world.told(Registered)
        self.assertEqual(len(registered), 2)
        self.assertTrue(all(one.fresh for one in registered if isinstance(one, Registered)))

    def test_asks_for_what_waits(self) -> None:
        """R16: a client that comes back asks for the directions that wait for it, once."""
        world = self.world()
        world.start()
        world.run(200.0)
        self.assertEqual(world.requests(RouteDirectionRequest), [RouteDirectionRequest(1000)])

    def test_one_family_of_the_coordinator(self) -> None:
        """Only families that both have are registered."""
        world = World(self.realm, remotes=(DC4,))
        world.start()
        self.assertEqual(list(world.registration.observed), [4])

    @given(st.integers(0, 1 << 30))
    @settings(max_examples=40, deadline=None)
    def test_lossy_network(self, seed: int) -> None:
        """R10: with a third of all datagrams lost, both families are registered before long."""
        world = self.world(seed, loss=0.33, latency=0.05)
        world.start()
        world.run(60.0)
        self.assertIs(world.registration.state, State.REGISTERED)
        self.assertEqual(len(world.location.observed), 2)
        self.assertEqual(world.told(Lost), [])

    def test_policy(self) -> None:
        """R13: whom the client admits is told at each start, and again until the DC knows it."""
        world = self.world()
        policy = PolicyRequest(5, ("*.alice.dc1.ntm.example",))
        world.registration.policy = policy
        world.start()
        self.assertEqual(world.requests(PolicyRequest), [policy])
        world.cut = lambda remote, upward: True
        newer = PolicyRequest(6, ())
        world.registration.set_policy(newer, world.now)
        world.run(11.0)
        world.cut = lambda remote, upward: False
        world.run(40.0)
        self.assertIn(newer, world.requests(PolicyRequest))

    def test_requests_pass(self) -> None:
        """Other requests of both sides pass through, with their tags."""
        world = self.world()
        world.start()
        world.registration.request(Deregistration(1), "mine", world.now)
        world.table.request(INDEX, NotificationRequest(FQDN, 1), "theirs", world.now)
        world.run(0.05)
        (answered,) = world.told(Answered)
        assert isinstance(answered, Answered)
        self.assertEqual(answered.tag, "mine")
        (asked,) = world.told(Asked)
        assert isinstance(asked, Asked)
        world.registration.answer(asked, Acknowledgement())
        world.run(0.05)
        self.assertEqual(world.answered, [ClientAnswered(INDEX, "theirs", Acknowledgement())])

    def test_down(self) -> None:
        """A client that goes says so; the DC counts it as off at once."""
        world = self.world()
        world.start()
        world.registration.stop(world.now)
        world.run(0.1)
        self.assertFalse(world.location.online)
        self.assertIs(world.registration.state, State.DOWN)
        count = world.count
        world.run(500.0)
        self.assertEqual(world.count, count)

    def test_moving_while_down(self) -> None:
        """A client that is down registers nothing, wherever it is carried."""
        world = self.world()
        world.start()
        world.registration.stop(world.now)
        world.run(1.0)
        count = world.count
        world.move(CAFE)
        world.run(10.0)
        self.assertEqual(world.count, count)


class MovingTests(RegistrationCase):
    def test_registers_at_once(self) -> None:
        """R9: after a move both families are registered within a round trip, one generation up."""
        world = self.world()
        world.start()
        world.run(30.0)
        world.move(CAFE)
        world.run(0.025)
        self.assertEqual(
            world.location,
            Location(
                1001,
                (Endpoint.of(("198.51.100.2", 50_000)), Endpoint.of(CAFE6)),
                (Endpoint.of(CAFE4), Endpoint.of(CAFE6)),
                (4,),
            ),
        )

    def test_not_registered_before_the_answer(self) -> None:
        """After a move the client does not count as registered until the DC says so."""
        world = self.world()
        world.start()
        world.move(CAFE)
        self.assertIs(world.registration.state, State.STARTING)
        self.assertEqual(world.registration.observed, {})
        world.run(0.1)
        self.assertIs(world.registration.state, State.REGISTERED)

    def test_answer_to_the_former_location(self) -> None:
        """R9: an answer that belongs to where the client was says nothing of where it is."""
        world = self.world(latency=0.2)
        world.start()
        world.move(CAFE)
        world.run(0.25)
        world.move(HOME, Nat("198.51.100.3"))
        world.run(0.2)
        self.assertEqual(world.registration.observed, {})
        world.run(0.5)
        self.assertEqual(world.location.generation, 1002)
        self.assertEqual(world.registration.observed[4][0].pair()[0], "198.51.100.3")

    def test_open_requests_follow(self) -> None:
        """What was asked just before the move is asked again at once from the new place."""
        world = self.world()
        world.start()
        world.cut = lambda remote, upward: True
        world.registration.request(Deregistration(7), "mine", world.now)
        world.run(1.6)  # the next repetition of its own would be at 3.1
        world.cut = lambda remote, upward: False
        world.move(CAFE)
        world.run(0.05)
        self.assertEqual(len(world.told(Answered)), 1)

    def test_into_the_open(self) -> None:
        """Out of a NAT: the DC sees an address of the client's own."""
        world = self.world()
        world.start()
        world.move({4: ("203.0.113.50", 4000)})
        world.run(0.1)
        self.assertEqual(world.location.translated, ())
        self.assertEqual(list(world.registration.observed), [4])

    def test_no_network_and_back(self) -> None:
        """Without any network nothing is sent, and the registration returns with the network."""
        world = self.world()
        world.start()
        world.move({})
        count = world.count
        world.run(300.0)
        self.assertEqual(world.count, count)
        self.assertIsNot(world.registration.state, State.REGISTERED)
        world.move(CAFE)
        world.run(0.1)
        self.assertIs(world.registration.state, State.REGISTERED)

    @given(st.integers(0, 1 << 30), st.lists(st.sampled_from([HOME, CAFE, {4: CAFE4}]), max_size=6))
    @settings(max_examples=30, deadline=None)
    def test_any_journey(self, seed: int, stations: list[dict[int, Address]]) -> None:
        """R9: whatever the journey and the losses, both ends end with the last station."""
        world = self.world(seed, loss=0.2, latency=0.05)
        world.start()
        for number, network in enumerate(stations):
            world.move(network, Nat(f"198.51.100.{number + 10}"))
            world.run(world.random.random())
        world.run(60.0)
        self.assertIs(world.registration.state, State.REGISTERED)
        self.assertEqual(world.location.generation, 1000 + len(stations))
        self.assertEqual({one.family for one in world.location.observed}, set(world.network))


class KeepAliveTests(RegistrationCase):
    def test_holds_the_registration(self) -> None:
        """For days: keep-alives hold the registration, without another registration."""
        world = self.world()
        world.start()
        for _ in range(200):
            world.run(97.0)
            self.assertTrue(world.location.online)
        self.assertEqual(len(world.requests(RegistrationRequest)), 2)

    def test_interval_grows(self) -> None:
        """An interval that held three times is made longer by half, up to the longest."""
        world = self.world()
        world.start()
        self.assertEqual(world.registration.interval, 15.0)
        world.run(46.0)
        self.assertEqual(world.registration.interval, 22.5)
        world.run(2000.0)
        self.assertEqual(world.registration.interval, 120.0)

    def test_interval_is_bounded_by_both(self) -> None:
        """An interval grows to what the DC allows, if that is below the own bound."""
        for allowed, reached in ((60, 60.0), (1000, 120.0)):
            world = self.world()
            world.longest = allowed
            world.start()
            world.run(2000.0)
            self.assertEqual(world.registration.interval, reached)

    def test_interval_begins_where_the_coordinator_asks(self) -> None:
        """The first interval is the one the DC asks for, within the client's own bounds."""
        for asked, begun in ((40, 40.0), (1, 15.0), (1000, 120.0)):
            world = self.world(keepalive=asked)
            world.start()
            self.assertEqual(world.registration.interval, begun)

    def test_rebinding_nat(self) -> None:
        """R9: a NAT that forgets after 60 s is noticed by the DC's echo; intervals get shorter."""
        world = World(self.realm, nat=Nat(timeout=60.0))
        world.start()
        world.run(3000.0)
        rebound = world.told(Rebound)
        self.assertGreaterEqual(len(rebound), 1)
        self.assertLess(len(rebound), 25)
        last = rebound[-1]
        assert isinstance(last, Rebound)
        self.assertEqual(last.observed, world.registration.observed[4][0])
        self.assertIn(last.observed, world.location.observed)

    def test_one_family_goes_and_returns(self) -> None:
        """A family that failed for a while is registered again; the other is not disturbed."""
        world = self.world()
        world.start()
        world.cut = lambda remote, upward: ":" not in remote[0]
        world.run(60.0)
        self.assertEqual(list(world.registration.observed), [6])
        self.assertIs(world.registration.state, State.REGISTERED)
        self.assertEqual(world.told(Silent), [])
        world.cut = lambda remote, upward: False
        world.run(60.0)
        self.assertEqual(set(world.registration.observed), {4, 6})


class SilenceTests(RegistrationCase):
    def test_silent_coordinator(self) -> None:
        """A DC that stops answering is noticed within a keep-alive and the patience, said once."""
        world = self.world()
        world.start()
        world.cut = lambda remote, upward: True
        world.run(15.0 + PATIENCE + 0.1)
        self.assertEqual(len(world.told(Silent)), 1)
        self.assertIs(world.registration.state, State.SILENT)
        world.run(30.0)
        self.assertEqual(len(world.told(Silent)), 1)
        lost = world.told(Lost)
        self.assertFalse(any(one.forgotten for one in lost if isinstance(one, Lost)))

    def test_coordinator_returns(self) -> None:
        """A DC that was silent and returns has the registration back, without a login."""
        world = self.world()
        world.start()
        world.cut = lambda remote, upward: True
        world.run(25.0)
        world.cut = lambda remote, upward: False
        world.run(4.0)
        self.assertIs(world.registration.state, State.REGISTERED)
        self.assertEqual(world.told(Lost), [])
        self.assertTrue(world.location.online)

    def test_restarted_coordinator(self) -> None:
        """R7: a DC that restarts is registered with again at the next keep-alive."""
        world = self.world()
        world.start()
        world.client.registered = False
        world.restart()
        world.run(16.0)
        self.assertIs(world.registration.state, State.REGISTERED)
        self.assertTrue(world.location.online)
        self.assertEqual(world.told(Silent), [])

    def test_nudged(self) -> None:
        """R7: a DC that restarted and hints to its client has it back within two round trips."""
        world = self.world()
        world.start()
        world.client.registered = False
        world.restart()
        world.table.nudge(INDEX, (("198.51.100.1", 50_000),), world.now)
        world.run(0.1)
        self.assertTrue(world.location.online)

    def test_forgotten(self) -> None:
        """A DC that does not know the session: the client is to log in, within seconds."""
        world = self.world()
        world.start()
        world.restart(knows=False)
        world.run(25.0)
        lost = world.told(Lost)[0]
        assert isinstance(lost, Lost)
        self.assertTrue(lost.forgotten)

    def test_unanswered_request(self) -> None:
        """Another request that is not answered ends under its tag, and disturbs nothing."""
        world = self.world()
        world.start()
        world.cut = lambda remote, upward: True
        world.registration.request(Deregistration(1), "mine", world.now, 2.0)
        world.run(2.5)
        self.assertEqual(world.told(TimedOut), [TimedOut("mine")])
        self.assertIs(world.registration.state, State.REGISTERED)

    def test_revoked(self) -> None:
        """R34: a client whose session was ended for good sends nothing more."""
        world = self.world()
        world.start()
        world.registration.revoked()
        count = world.count
        world.run(500.0)
        self.assertEqual(world.count, count)

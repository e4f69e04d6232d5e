"""The message ladder of the demo."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ntmobile.demo.following import Event
from ntmobile.demo.ladder import MEANINGS, STORED, STORED_STEPS, WIDTH, Ladder, Style
from ntmobile.demo.platform import CN, CS, DC_CN, DC_MN, MN, RS
from ntmobile.demo.show import LANES, STORED_LANES
from ntmobile.wire import codec
from ntmobile.wire.messages import coordination, realtime, relaying, tunnel


class LadderTests(SynchronousTestCase):
    """Events become lines."""

    def setUp(self) -> None:
        self.ladder = Ladder(LANES)

    def draw(self, *events: Event) -> list[str]:
        """The lines of events."""
        lines = [self.ladder.draw(event) for event in events]
        return [line.text for line in lines if line is not None]

    def test_picture(self) -> None:
        """Arrows go from lane to lane, under their names, with milliseconds since the first."""
        drawn = self.draw(
            Event(100.0, MN, DC_MN, "Direction Request"),
            Event(100.0042, DC_MN, "", "lookup", f"{DC_CN} is at 192.0.2.12"),
            Event(100.0066, DC_MN, DC_CN, "NTM Information Request"),
            Event(100.0101, CN, MN, "Tunnel Request", "direct"),
            Event(101.5, MN, CN, "Tunnel Response", f"through {RS}"),
        )
        picture = [
            "     ms MN     DC-MN   DC-CN    RS      CN",
            "    0.0  |------>|       |       |       |  Direction Request: to CN, please",
            "    4.2  |       *       |       |       |  DNS: dc2.ntm.example at 192.0.2.12",
            "    6.6  |       |------>|       |       |  NTM Information Request: CN?",
            "   10.1  |<------------------------------|  Tunnel Request: handshake",
            " 1500.0  |-----------------------o------>|  Tunnel Response: keys",
        ]
        self.assertEqual(picture, [self.ladder.heading(), *drawn])

    def test_width(self) -> None:
        """No line is longer than 80 columns, whatever an event says."""
        drawn = self.draw(
            *(Event(float(n), CN, MN, title, "x" * 200) for n, title in enumerate(MEANINGS)),
            Event(9999.0, MN, "", "path", "y" * 200),
        )
        self.assertEqual(len(MEANINGS) + 1, len(drawn))
        self.assertLessEqual(max(map(len, drawn)), WIDTH)

    def test_known_titles(self) -> None:
        """Every message that has a meaning here is one of the protocol."""
        modules = {one.__name__ for one in (coordination, realtime, relaying, tunnel)}
        declared = {one.title for one in codec.declarations() if one.type.__module__ in modules}
        self.assertEqual(set(), set(MEANINGS) - declared)
        titles = {one.title for one in codec.declarations()}
        titles |= {one.replace(" Response", " Request") for one in titles}  # these have no body
        self.assertEqual(set(), set(STORED) - titles)

    def test_stored_data(self) -> None:
        """Figures 3 and 4 have a cache server among their lanes, and devices by their roles."""
        self.ladder = Ladder(STORED_LANES, STORED, STORED_STEPS)
        drawn = self.draw(
            Event(1.0, MN, CS, "Encryption Key Upload Request"),
            Event(1.0012, CS, DC_CN, "Encryption Key Exchange Request"),
            Event(1.0123, CN, "", "arrived", f"from {MN}"),
            Event(1.0124, CN, "", "tunnel", "direct to 192.0.2.1"),
            Event(1.5, MN, "", "delivered", f"to {CN}"),
        )
        picture = [
            "     ms MN     DC-MN    CS     DC-CN    CN",
            "    0.0  |-------------->|       |       |  Encryption Key Upload Request",
            "    1.2  |       |       |------>|       |  Encryption Key Exchange Request",
            "   12.3  |       |       |       |       *  verified: it is from MN",
            "  500.0  *       |       |       |       |  verified: it came to CN",
        ]
        self.assertEqual(picture, [self.ladder.heading(), *drawn])

    def test_repeated(self) -> None:
        """Of the same message between the same two the first is drawn, others are counted."""
        drawn = self.draw(*(Event(n, MN, RS, "Relay Tunnel Request") for n in (1.0, 2.0, 3.0)))
        self.assertEqual(1, len(drawn))
        self.assertEqual(2, self.ladder.repeated)
        self.ladder.begin()
        self.assertEqual(1, len(self.draw(Event(9.0, MN, RS, "Relay Tunnel Request"))))
        self.assertEqual(0, self.ladder.repeated)

    def test_others_are_left_out(self) -> None:
        """Keep-alives, leases, and those who have no lane are not drawn."""
        drawn = self.draw(
            Event(1.0, MN, DC_MN, "Keep Alive"),
            Event(1.0, "ntm.example", DC_MN, "Lease"),
            Event(1.0, "client", DC_MN, "Direction Request"),
            Event(1.0, DC_MN, "ntm.example", "Direction Request"),
            Event(1.0, MN, "", "something"),
        )
        self.assertEqual([], drawn)
        self.assertEqual(0, self.ladder.repeated)

    def test_words_follow_the_sender(self) -> None:
        """Who is asked for is seen from who asks, and a relayed route is told from a direct one."""
        drawn = self.draw(
            Event(1.0, CN, DC_CN, "Direction Request"),
            Event(1.0, DC_CN, CN, "Route Direction", "behind different NATs: relay"),
            Event(1.0, DC_MN, MN, "Route Direction", "one behind NAT"),
        )
        words = [line.rpartition("|  ")[2] for line in drawn]
        self.assertEqual(
            [
                "Direction Request: to MN, please",
                "Route Direction: use the relay",
                "Route Direction: go direct",
            ],
            words,
        )

    def test_styles(self) -> None:
        """Signalling, tunnel and steps are told apart, for colours."""
        events = (
            Event(1.0, MN, DC_MN, "Direction Request"),
            Event(1.0, CN, MN, "Tunnel Request"),
            Event(1.0, MN, "", "network", "none"),
        )
        styles = [line.style for event in events if (line := self.ladder.draw(event))]
        self.assertEqual([Style.SIGNALLING, Style.TUNNEL, Style.STEP], styles)

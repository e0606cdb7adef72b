import { describe, expect, test } from '@jest/globals';
import * as fc from 'fast-check';
import { type DeliveredEvent, type FeedFilter, feedFilter } from '../../contracts/feed.ts';
import { matchesFilter } from '../../lib/feed-filter.ts';

const kinds = ['booking.created', 'trip.started', 'sos.triggered', 'sos.moved', 'safety.alarm', 'later.kind'];
const degrees = (limit: number) => fc.integer({ min: -limit, max: limit });
const place = fc.record({ lat: degrees(90), lng: degrees(180) });
const event: fc.Arbitrary<DeliveredEvent> = fc.record({
  id: fc.constant('1-0'),
  kind: fc.constantFrom(...kinds),
  at: fc.constant(1),
  data: fc.record(
    {
      tripId: fc.constantFrom('trp_a', 'trp_b'),
      city: fc.constantFrom('Pune', 'Delhi'),
      location: place,
      from: place,
    },
    { requiredKeys: [] },
  ),
});
const bbox = fc
  .tuple(degrees(180), degrees(90), degrees(180), degrees(90))
  .map(([west, a, east, b]): NonNullable<FeedFilter['bbox']> => [west, Math.min(a, b), east, Math.max(a, b)]);
const filter: fc.Arbitrary<FeedFilter> = fc.record(
  {
    kinds: fc.subarray(kinds),
    tripId: fc.constantFrom('trp_a', 'trp_b'),
    city: fc.constantFrom('Pune', 'Delhi'),
    bbox,
  },
  { requiredKeys: [] },
);
const isAlarm = ({ kind }: DeliveredEvent) => /^(sos|safety)\./.test(kind);

describe('R7.6 matchesFilter', () => {
  test('without a filter everything matches, also kinds of a later version', () => {
    fc.assert(fc.property(event, (e) => expect(matchesFilter({}, e)).toBe(true)));
  });

  test('a filter is no more and no less than all of its parts', () => {
    fc.assert(
      fc.property(filter, event, (f, e) => {
        const parts = Object.entries(f).map(([key, value]) => matchesFilter({ [key]: value }, e));
        expect(matchesFilter(f, e)).toBe(parts.every(Boolean));
      }),
    );
  });

  test('kinds and trip let through what they name', () => {
    fc.assert(
      fc.property(filter, event, (f, e) => {
        expect(matchesFilter({ kinds: f.kinds ?? [] }, e)).toBe((f.kinds ?? []).includes(e.kind));
        expect(matchesFilter({ tripId: 'trp_a' }, e)).toBe(e.data['tripId'] === 'trp_a');
      }),
    );
  });

  test('a view and its opposite side of the globe share only their edges', () => {
    fc.assert(
      fc.property(degrees(180), degrees(180), place, (west, east, at) => {
        const e = { id: '1-0', kind: 'booking.created', at: 1, data: { from: at } };
        const inside = matchesFilter({ bbox: [west, -90, east, 90] }, e);
        const outside = matchesFilter({ bbox: [east, -90, west, 90] }, e);
        const isOnEdge = at.lng === west || at.lng === east;
        // Without width a view and its opposite are the same meridian
        expect(inside || outside).toBe(west !== east || isOnEdge);
        if (!isOnEdge) expect(inside && outside).toBe(false);
      }),
    );
  });

  test('latitudes outside of the view do not match', () => {
    fc.assert(
      fc.property(bbox, place, ([west, south, east, north], at) => {
        const e = { id: '1-0', kind: 'sos.triggered', at: 1, data: { location: at } };
        if (at.lat < south || at.lat > north)
          expect(matchesFilter({ bbox: [west, south, east, north] }, e)).toBe(false);
      }),
    );
  });

  test('an alarm whose place nobody knows is everybody’s; other events are not', () => {
    fc.assert(
      fc.property(event, bbox, (e, view) => {
        const { tripId } = e.data;
        const nowhere = { ...e, data: tripId === undefined ? {} : { tripId } };
        expect(matchesFilter({ bbox: view }, nowhere)).toBe(isAlarm(e));
        expect(matchesFilter({ city: 'Pune' }, nowhere)).toBe(isAlarm(e));
      }),
    );
  });

  test('what is no position does not count as one', () => {
    for (const location of [null, 'here', { lat: '1', lng: 2 }, { lat: 1 }])
      expect(
        matchesFilter(
          { bbox: [0, 0, 9, 9] },
          { id: '1-0', kind: 'booking.created', at: 1, data: { location } },
        ),
      ).toBe(false);
  });

  test('the contract refuses a view upside down or off the globe', () => {
    const accepts = (view: unknown) => feedFilter.safeParse({ bbox: view }).success;
    expect(
      [
        [0, 0, 1, 1],
        [170, -10, -170, 10],
        [-180, -90, 180, 90],
      ].map(accepts),
    ).toEqual([true, true, true]);
    expect([[0, 1, 1, 0], [0, 0, 181, 1], [0, 0, 1], 'all', [0, 0, 1, '1']].map(accepts)).toEqual(
      Array(5).fill(false),
    );
  });
});

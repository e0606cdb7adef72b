import { describe, expect, test } from '@jest/globals';
import { planOf, shapeOf } from '../../../mixins/slow-queries.ts';

describe('what the log says of a slow query', () => {
  test.each([
    [{ phoneHash: 'secret' }, { phoneHash: '?' }],
    [{ $or: [{ riderId: 'a' }, { driverId: 'a' }] }, { $or: [{ riderId: '?' }, { driverId: '?' }] }],
    [
      { status: { $in: ['a', 'b'] }, at: { $gt: new Date() } },
      { status: { $in: ['?'] }, at: { $gt: '?' } },
    ],
    [[{ $limit: 5 }], [{ $limit: '?' }]],
    [null, '?'],
  ])('%j has its shape without its values', (query, shape) => {
    expect(shapeOf(query)).toEqual(shape);
  });

  test('a plan is a line', () => {
    const scan = (indexName: string) => ({ stage: 'IXSCAN', indexName, filter: { phone: 'secret' } });
    expect(planOf({ stage: 'COLLSCAN' })).toBe('COLLSCAN');
    expect(
      planOf({
        stage: 'FETCH',
        inputStage: { stage: 'OR', inputStages: [scan('riderId_1'), scan('driverId_1')] },
      }),
    ).toBe('FETCH < OR < IXSCAN riderId_1 + IXSCAN driverId_1');
  });
});

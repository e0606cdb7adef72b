/** The positions of people who have raised an alert, from the SOS Redis to whoever follows them by a link on this node. */
import type { Redis } from 'ioredis';
import type { SharedPosition } from '../../contracts/socket.ts';
import { movedChannel } from '../../lib/sos-channel.ts';

/**
 * Listens for as long as the connection lives. A position that is missed meanwhile is no loss: the next is some seconds
 * away.
 */
export function followAlerts(
  subscriber: Redis,
  deliver: (alertId: string, position: SharedPosition) => void,
  onTrouble: (text: string, error: unknown) => void,
): void {
  const subscribe = () => {
    subscriber
      .subscribe(movedChannel)
      .catch((error: unknown) => onTrouble('Positions of alerts do not arrive', error));
  };
  subscriber.on('ready', subscribe);
  if (subscriber.status === 'ready') subscribe();
  subscriber.on('message', (channel: string, message: string) => {
    if (channel !== movedChannel) return;
    // Written by the sos service alone
    const { alertId, ...position } = JSON.parse(message) as SharedPosition & { alertId: string };
    deliver(alertId, position);
  });
}

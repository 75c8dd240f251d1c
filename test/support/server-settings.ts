import { wireLabelBounds } from '../../src/protocol/schema-table.ts';
import { noWebConfig } from '../../src/server/web/web-config-file.ts';
import type { ServerParts } from '../../src/server/wire-up.ts';

/** Settings of a server without keys, on ports that a test opens itself. */
export function serverSettings(settings: Partial<ServerParts['settings']> = {}): ServerParts['settings'] {
  return {
    listen: { address: '192.0.2.1', port: 9732 },
    webListen: [{ kind: 'tcp', address: '', port: 9733 }],
    ...{ webConfigFile: undefined, webConfig: noWebConfig },
    ...{ webHosts: new Set<string>(), archiveFolder: undefined, compression: true },
    ...{ fleetKeys: [], revoked: new Map(), stateDir: '/state', plaintext: false },
    ...{ windowMs: 30 * 60_000, memoryBytesMax: 512 * 2 ** 20, labelBounds: wireLabelBounds },
    ...{ connectionsMax: 100, connectionsPerAddressMax: 100 },
    ...settings,
  };
}

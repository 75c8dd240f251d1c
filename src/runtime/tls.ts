import { constants } from 'node:crypto';
import type { CommonConnectionOptions, SecureContextOptions } from 'node:tls';

/** Who one is, and the secret that proves it. */
export interface Psk {
  readonly identity: string;
  readonly key: Buffer;
}

/**
 * The one way in which the two ends speak TLS: version 1.3, an external pre-shared key mixed with a fresh key exchange,
 * one cipher (its hash is the one that OpenSSL takes external keys with).
 */
export const tlsParameters = {
  minVersion: 'TLSv1.3',
  maxVersion: 'TLSv1.3',
  ciphers: 'TLS_AES_128_GCM_SHA256',
  ecdhCurve: 'X25519',
  // Without it a server issues tickets, and a client that has saved one connects again without the key, without
  // pskCallback being called: a revoked agent for days.
  secureOptions: constants.SSL_OP_NO_TICKET,
} as const satisfies SecureContextOptions & CommonConnectionOptions;

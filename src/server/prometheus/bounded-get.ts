import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { reasonOf } from '../../runtime/words.ts';
import { DatabaseError } from '../delivery/receipts.ts';

/** What a request proves who it is by, and whom it believes. */
export interface Access {
  /** The value of the header; undefined: none. */
  readonly authorization: string | undefined;
  /** Certificates of authorities, in PEM; undefined: those of Node.js. */
  readonly ca: string | undefined;
}

export interface GetAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

/**
 * GET requests to one server, over one connection that is kept. Whatever it answers, a request ends in bounded time and
 * memory; redirects are not followed, since they would carry the credentials elsewhere.
 */
export class BoundedGet {
  /** Without a slash at its end. */
  readonly url: string;
  #access: Access;
  #agent: HttpAgent | HttpsAgent;

  constructor(url: string, access: Access) {
    this.url = url;
    this.#access = access;
    this.#agent = this.#newAgent();
  }

  set access(access: Access) {
    this.#access = access;
    this.#agent.destroy();
    this.#agent = this.#newAgent();
  }

  /** Rejects with a {@link DatabaseError}. */
  get(
    path: string,
    query: Readonly<Record<string, string>>,
    { timeoutMs, bytesMax }: { readonly timeoutMs: number; readonly bytesMax: number },
  ): Promise<GetAnswer> {
    const { authorization } = this.#access;
    const parameters = new URLSearchParams(query).toString();
    const target = `${this.url}${path}${parameters === '' ? '' : `?${parameters}`}`;
    const headers = {
      Accept: 'application/json',
      // What is not compressed is as large as it is sent.
      'Accept-Encoding': 'identity',
      'User-Agent': 'sysmon-server',
      ...(authorization === undefined ? {} : { Authorization: authorization }),
    };
    return new Promise((resolve, reject) => {
      const request = this.url.startsWith('https:') ? httpsRequest : httpRequest;
      const asking = request(target, { agent: this.#agent, headers }, (response) => {
        textOf(response, bytesMax).then(
          (text) => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }),
          (error: unknown) => {
            reject(error);
            asking.destroy();
          },
        );
      });
      const deadline = setTimeout(() => {
        asking.destroy(new DatabaseError('unreachable', `no answer within ${timeoutMs / 1000} s`));
      }, timeoutMs);
      asking.once('error', (error) => reject(databaseError(error)));
      asking.once('close', () => clearTimeout(deadline));
      asking.end();
    });
  }

  stop(): void {
    this.#agent.destroy();
  }

  #newAgent(): HttpAgent | HttpsAgent {
    const { ca } = this.#access;
    const options = { keepAlive: true, maxSockets: connectionsMax, maxTotalSockets: connectionsMax };
    return this.url.startsWith('https:') ? new HttpsAgent({ ...options, ca }) : new HttpAgent(options);
  }
}

async function textOf(response: IncomingMessage, bytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const chunk of response as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > bytesMax) throw new DatabaseError('malformed', `its answer is longer than ${bytesMax} bytes`);
      chunks.push(chunk);
    }
  } catch (error) {
    throw databaseError(error);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function databaseError(error: unknown): DatabaseError {
  return error instanceof DatabaseError ? error : new DatabaseError('unreachable', reasonOf(error), { cause: error });
}

// One for questions, one for the reasons of a failed scrape.
const connectionsMax = 2;

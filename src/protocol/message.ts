import type { Family } from '../model/family.ts';

/** The version of the wire that this program speaks. */
export const protocolVersion = 1;

/** What an agent's pairs carry: a skip, then a delta, a sum, or nil for absent (PROTOCOL.md, reports). */
export type Pairs = readonly (number | null)[];

export interface FamilyDeclaration {
  readonly family: Family;
  readonly seriesCount: number;
  /** Flat, series after series. */
  readonly labelValues: readonly string[];
}

export interface EpochSeq {
  /** A random integer of 53 bits. */
  readonly epoch: number;
  /** The last report received of it, 0 for none. */
  readonly seq: number;
}

export interface Hello {
  readonly kind: 'hello';
  readonly version: number;
  readonly agentName: string;
  readonly hostId: string;
  readonly labels: readonly (readonly [name: string, value: string])[];
  readonly intervalMs: number;
}
export interface Begin {
  readonly kind: 'begin';
  readonly epoch: number;
  readonly offsetMs: number;
}
export interface SchemaMessage {
  readonly kind: 'schema';
  readonly families: readonly FamilyDeclaration[];
}
export interface ReportMessage {
  readonly kind: 'report';
  /** A key report first makes every series present with sum 0. */
  readonly key: boolean;
  readonly seq: number;
  readonly timeMs: number;
  readonly pairs: Pairs;
}
export interface Ping {
  readonly kind: 'ping';
  readonly nonce: number;
}
/** A kind that this version does not know: checked like any other, then skipped. */
export interface Unknown {
  readonly kind: 'unknown';
  readonly number: number;
}
export type AgentMessage = Hello | Begin | SchemaMessage | ReportMessage | Ping | Unknown;

export interface Welcome {
  readonly kind: 'welcome';
  readonly version: number;
  readonly epochs: readonly EpochSeq[];
  readonly nowMs: number;
}
export interface Ack {
  readonly kind: 'ack';
  readonly epoch: number;
  readonly seq: number;
}
export interface ErrorMessage {
  readonly kind: 'error';
  readonly code: string;
  readonly text: string;
}
export interface Pong {
  readonly kind: 'pong';
  readonly nonce: number;
  readonly nowMs: number;
}
export type ServerMessage = Welcome | Ack | ErrorMessage | Pong | Unknown;

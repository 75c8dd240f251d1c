import { CollectError } from '../../src/agent/collect/proc/errors.ts';
import { Host, type ReadFile } from '../../src/agent/collect/proc/host.ts';
import { newCollector } from './collect-fixture.ts';
import { type FixtureTree, systemOf } from './fixture-proc.ts';

/** The files of the tree that a collector reads, in this order. */
export function filesRead(name: string, tree: FixtureTree): readonly string[] {
  const host = new TracingHost(tree.roots, systemOf());
  try {
    newCollector(name).collect(host, { sample() {}, sampleLabels() {} });
  } catch (error) {
    if (!(error instanceof CollectError)) throw error;
  } finally {
    host.close();
  }
  return [...host.filesRead];
}

class TracingHost extends Host {
  readonly filesRead = new Set<string>();

  override passing(path: string) {
    const text = super.passing(path);
    if (text !== undefined) this.filesRead.add(path);
    return text;
  }

  protected override file(path: string): ReadFile {
    const file = super.file(path);
    if (file.error === undefined) this.filesRead.add(path);
    return file;
  }
}

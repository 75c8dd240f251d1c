// The list of what a release has of others: https://cyclonedx.org/docs/1.5/json/
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { fail, root } from './lib.mjs';
import { architectures, runtime } from './runtime.mjs';

/**
 * What npm says of the packages that are bundled, and the Node.js of each architecture. Without a time or a random
 * number, so that the same release gives the same bytes.
 */
export function sbomText({ version, seconds }, bundled) {
  const { stdout, stderr, status } = spawnSync(
    'npm',
    ['sbom', '--package-lock-only', '--omit=dev', '--sbom-format=cyclonedx', '--sbom-type=application'],
    { cwd: root, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 },
  );
  if (status !== 0) fail(`'npm sbom' failed: ${stderr}`);
  const bom = JSON.parse(stdout);
  const components = bom.components.filter(({ name }) => bundled.includes(name));
  const missing = bundled.filter((name) => !components.some((component) => component.name === name));
  if (missing.length > 0) fail(`'npm sbom' does not know '${missing.join("', '")}', which is bundled`);
  const refs = new Set([...components.map((component) => component['bom-ref']), `sysmon@${version}`]);
  const dependencies = bom.dependencies
    .filter(({ ref }) => refs.has(ref))
    .map(({ ref, dependsOn }) => ({ ref, dependsOn: dependsOn.filter((other) => refs.has(other)) }));
  const nodes = architectures.map(nodeComponent);
  dependencies.find(({ ref }) => ref === `sysmon@${version}`).dependsOn.push(...nodes.map((node) => node['bom-ref']));
  const made = {
    ...bom,
    metadata: {
      ...bom.metadata,
      timestamp: new Date(seconds * 1000).toISOString(),
      // npm takes the name of the folder.
      component: { ...bom.metadata.component, name: 'sysmon' },
      // Whose version is the builder's.
      tools: [{ vendor: 'npm', name: 'cli' }],
    },
    components: [...components, ...nodes],
    dependencies: [...dependencies, ...nodes.map((node) => ({ ref: node['bom-ref'], dependsOn: [] }))],
  };
  delete made.serialNumber;
  return `${JSON.stringify({ ...made, serialNumber: uuidOf(JSON.stringify(made)) }, undefined, 2)}\n`;
}

function nodeComponent(architecture) {
  const name = `node-linux-${architecture}`;
  const hash = Buffer.from(runtime.integrity[architecture].slice('sha512-'.length), 'base64').toString('hex');
  return {
    'bom-ref': `${name}@${runtime.version}`,
    type: 'application',
    name,
    version: runtime.version,
    scope: 'required',
    description: `Node.js for Linux on ${architecture}`,
    cpe: `cpe:2.3:a:nodejs:node.js:${runtime.version}:*:*:*:*:*:*:*`,
    purl: `pkg:npm/${name}@${runtime.version}`,
    hashes: [{ alg: 'SHA-512', content: hash }],
    licenses: [{ license: { id: 'MIT' } }],
  };
}

/** Of what it numbers, in the form of RFC 9562's version 8. */
function uuidOf(text) {
  const hex = createHash('sha256').update(text).digest('hex');
  const variant = ((Number.parseInt(hex[16], 16) & 3) | 8).toString(16);
  return `urn:uuid:${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

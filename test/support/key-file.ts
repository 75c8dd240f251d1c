/** An agent's key file, as install.sh writes it. */
export function keyFileText(identity: string, key: Uint8Array): string {
  return `sysmon-key-v1 ${identity} ${Buffer.from(key).toString('hex')}\n`;
}

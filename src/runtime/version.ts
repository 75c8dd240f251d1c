// scripts/compile.mjs puts package.json's version in its place.
declare const SYSMON_VERSION: string | undefined;

/** The version of this program; `unbundled` where it runs from build/, file by file. */
export const version: string = typeof SYSMON_VERSION === 'string' ? SYSMON_VERSION : 'unbundled';

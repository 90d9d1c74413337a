// The one error of this room: a file that cannot be booted in this machine.

/** The message is one line for the user: what is wrong, and what to do about it. */
export class BootError extends Error {}

const MIB = 1024 * 1024;

/** A size as messages give it. */
export function sizeText(bytes: number): string {
  if (bytes >= MIB) return `${Math.ceil((bytes / MIB) * 10) / 10} MiB`;
  return bytes >= 1024 ? `${Math.ceil(bytes / 1024)} KiB` : `${bytes} bytes`;
}

/** An address as messages give it. */
export const hex = (address: number | bigint): string => `0x${address.toString(16)}`;

// What the devices' thread says of ports beforehand (`KnownPort`, and the status of a `PostedPort`), so that vCPUs need not ask.

import { type ControlArea, GLOBAL } from "./control-area.ts";

/** Says whether the status with this flag, below 8, is as usual. */
export function setUsual(area: ControlArea, flag: number, usual: boolean): void {
  Atomics.store(area.words, GLOBAL.USUAL + flag, Number(usual));
}

export function isUsual(words: Int32Array, flag: number): boolean {
  return Atomics.load(words, GLOBAL.USUAL + flag) !== 0;
}

const IS_KNOWN = 0x10000;

/** Says what the port with this index, below 16, gives now; undefined: to be asked for. */
export function setKnown(area: ControlArea, index: number, value: number | undefined): void {
  Atomics.store(area.words, GLOBAL.KNOWN + index, value === undefined ? 0 : value | IS_KNOWN);
}

/** What a port gives; undefined: to be asked for. */
export function knownValue(words: Int32Array, index: number): number | undefined {
  const value = Atomics.load(words, GLOBAL.KNOWN + index);
  return value & IS_KNOWN ? value & 0xffff : undefined;
}

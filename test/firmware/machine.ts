// Configurations of the firmware for tests.

import type { FirmwareConfig } from "../../src/firmware/config.ts";

const MIB = 1024 * 1024;

export function firmwareConfig(changes: Partial<FirmwareConfig> = {}): FirmwareConfig {
  return {
    memoryBytes: 512 * MIB,
    cpus: [0],
    ioapic: { id: 0, base: 0xfec00000, gsiBase: 0 },
    hpetBase: 0xfed00000,
    ecamBase: 0xe0000000,
    ecamBuses: 256,
    pmBase: 0x600,
    sciIrq: 9,
    smiCommand: 0,
    pciWindow32: { base: 0xc0000000, length: 0x20000000 },
    pciWindow64: { base: 0x8000000000, length: 0x1000000000 },
    com1: { port: 0x3f8, irq: 4 },
    ...changes,
  };
}

/** Ids 0..count-1. */
export const apicIds = (count: number): number[] => Array.from({ length: count }, (_, id) => id);

export const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");

export const sumOf = (bytes: Uint8Array): number => bytes.reduce((sum, byte) => (sum + byte) & 0xff, 0);

/** Whether a program can be run here; for tests against tools that not every machine has. */
export async function hasTool(command: string): Promise<boolean> {
  const { spawnSync } = await import("node:child_process");
  // Not -v: with it an assembler goes on, and leaves an a.out.
  return spawnSync(command, ["--version"], { stdio: "ignore" }).error === undefined;
}

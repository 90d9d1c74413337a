// A rig with a CPU model, and what the tests of system instructions ask of it.

import { engineModel } from "../../../src/cpu/cpuid-leaves.ts";
import { type CpuModel, parseCpuModel } from "../../../src/cpu/model.ts";
import { EXIT } from "../../../src/isa/exit.ts";
import type { EngineHost } from "../../../src/vmm/engine.ts";
import { AT, Rig } from "../../cpu/rig.ts";
import { assemble } from "./assemble.ts";

export const TOPOLOGY = { apicId: 0, cpus: 1, tscHz: 2_000_000_000, crystalHz: 1_000_000_000 };

export function machine(model: string | CpuModel = "max", host: Partial<EngineHost> = {}): Rig {
  const parsed = typeof model === "string" ? parseCpuModel(model) : model;
  return new Rig(engineModel(parsed, TOPOLOGY), host);
}

/** Assembles and runs until HLT; anything else is an error. */
export function execute(rig: Rig, source: string, bits: 16 | 32 | 64 = 64, at: number = AT.CODE): void {
  const reason = rig.run(assemble(source, at, bits), at);
  if (reason !== EXIT.HLT) throw new Error(`the program ended with exit ${reason}`);
}

/** A quadword of guest memory. */
export function quad(rig: Rig, at: number): bigint {
  return rig.view.getBigUint64(at, true);
}

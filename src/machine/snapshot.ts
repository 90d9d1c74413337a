// A machine that stands still, as something that can be kept: its state, and what its RAM holds apart from zeros. Contents of disks are apart.

import type { GuestRam } from "../vmm/memory.ts";
import { type Section, StateError } from "../vmm/state.ts";
import type { Machine } from "./machine.ts";

/** Can be cloned and sent between threads. */
export interface Snapshot {
  readonly state: Section;
  readonly memory: readonly MemoryPiece[];
}

export interface MemoryPiece {
  readonly gpa: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
}

const PIECE_BYTES = 1 << 18;

/** The clock must be stopped, and no run in progress. */
export function saveSnapshot(machine: Machine): Snapshot {
  // The state first: devices may still have something to write to memory.
  const state = machine.save();
  return { state, memory: saveMemory(machine.pc.memory) };
}

/** Into a machine made with the same configuration, whose RAM is as it was made. */
export function restoreSnapshot(machine: Machine, snapshot: Snapshot): void {
  const { memory } = machine.pc;
  for (const { gpa, bytes } of snapshot.memory) {
    const view = memory.writableView(gpa, bytes.length);
    if (view === undefined) throw new StateError("the snapshot has memory where this machine has none");
    view.set(bytes);
    memory.written(gpa, bytes.length);
  }
  machine.restore(snapshot.state);
}

function saveMemory(memory: GuestRam): MemoryPiece[] {
  const pieces: MemoryPiece[] = [];
  // What is not writable shows RAM that is at another place too.
  for (const slot of memory.slots.filter(({ writable }) => writable)) {
    for (let at = 0; at < slot.length; at += PIECE_BYTES) {
      const length = Math.min(PIECE_BYTES, slot.length - at);
      const words = new Int32Array(memory.memory.buffer, slot.host + at, length / 4);
      if (words.every((word) => word === 0)) continue;
      pieces.push({ gpa: slot.gpa + at, bytes: new Uint8Array(memory.memory.buffer, slot.host + at, length).slice() });
    }
  }
  return pieces;
}

// Where a machine stands that does not come to its end, as text: what the machine answers, and what the host's threads of its process do. The
// threads come first, since each question wakes all vCPUs.

import { readdirSync, readFileSync } from "node:fs";
import type { ControlRequest, MachineStatus } from "../../src/machine/control.ts";

/** Asks the machine: `VirtualMachine.control`, or its socket. */
export type Ask = (request: ControlRequest) => Promise<unknown>;

const ANSWER_MS = 10_000;
const BETWEEN_MS = 1000;

export function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** The result, or an Error in its place if it takes longer. */
export async function atMost<T>(milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${what}: no answer for ${milliseconds / 1000} s`)), milliseconds);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** proc(5): name, state and processor time of each thread, and what it waits for. */
function threadsOf(pid: number): string[] {
  const read = (path: string): string => {
    try {
      return readFileSync(path, "utf8").trim();
    } catch {
      return "?";
    }
  };
  return readdirSync(`/proc/${pid}/task`).map((task) => {
    const folder = `/proc/${pid}/task/${task}`;
    const fields = read(`${folder}/stat`)
      .replace(/^.*\) /s, "")
      .split(" ");
    const ticks = Number(fields[11]) + Number(fields[12]);
    return `thread ${task} ${read(`${folder}/comm`)} ${fields[0]} ${ticks} ticks ${read(`${folder}/wchan`)}`;
  });
}

export async function machineState(pid: number, ask: Ask): Promise<string> {
  const lines: string[] = [];
  const threads = (): void => {
    try {
      lines.push(...threadsOf(pid));
    } catch {
      lines.push("the process is gone");
    }
  };
  threads();
  await pause(BETWEEN_MS);
  lines.push("a second later");
  threads();
  let cpus = 1;
  const answer = async (request: ControlRequest): Promise<void> => {
    try {
      const result = await atMost(ANSWER_MS, JSON.stringify(request), ask(request));
      if (request.what === "status") cpus = (result as MachineStatus).vcpus.length;
      lines.push(`${JSON.stringify(request)} ${JSON.stringify(result)}`);
    } catch (error) {
      lines.push(error instanceof Error ? error.message : String(error));
    }
  };
  await answer({ what: "status" });
  await pause(BETWEEN_MS);
  await answer({ what: "status" });
  for (let cpu = 0; cpu < cpus; cpu++) await answer({ what: "vcpu", cpu, request: { what: "registers" } });
  await answer({ what: "vcpu", cpu: "all", request: { what: "apic" } });
  await answer({ what: "ioapic" });
  return lines.join("\n");
}

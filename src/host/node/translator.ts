// Only machines that translate load the translator; the instruction descriptions come with it where the compiler is on the same thread.

import type { MachineConfig } from "../../machine/config.ts";
import type { RunnerOptions } from "../../machine/runner.ts";
import { type CompilerConnection, compileElsewhere } from "./compiler-connection.ts";

/** `connections`: one for each vCPU of this thread; without them the compiler is on this thread. */
export async function translatorFor(
  { engine, without }: Pick<MachineConfig, "engine" | "without">,
  connections?: readonly CompilerConnection[],
): Promise<RunnerOptions["translator"]> {
  if (engine !== "translate") return undefined;
  const options = without.includes("larger-regions") ? { largeAfter: Number.POSITIVE_INFINITY } : {};
  if (connections === undefined) {
    const { standardTranslator } = await import("../../cpu/translator/standard-translator.ts");
    return standardTranslator(options);
  }
  const { Translator } = await import("../../cpu/translator/translator.ts");
  let next = 0;
  return (host, traces) =>
    new Translator(host, { ...options, compiler: compileElsewhere(connections[next++]), trace: traces?.regions });
}

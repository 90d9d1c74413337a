// The translator for the engine module with all instructions, with the compiler on the thread that runs the guest. Loaded only by machines that
// translate so: the instruction descriptions come with it.

import { INSTRUCTIONS } from "../../isa/table.ts";
import { RegionChecker } from "./check.ts";
import { compileOnSameThread } from "./same-thread.ts";
import { type MakeTranslator, Translator, type TranslatorOptions } from "./translator.ts";

/** Makes the translators of one machine's vCPUs. */
export function standardTranslator(options: Pick<TranslatorOptions, "largeAfter"> = {}): MakeTranslator {
  let compiler: TranslatorOptions["compiler"] | undefined;
  return (host, traces) => {
    compiler ??= compileOnSameThread({ instructions: INSTRUCTIONS, dump: traces?.code });
    return new Translator(host, { ...options, compiler, trace: traces?.regions });
  };
}

/** Makes what holds one of `every` executions of regions against the interpreter, for engine modules with a journal. */
export function regionChecker(every: number): () => RegionChecker {
  return () => new RegionChecker(every);
}

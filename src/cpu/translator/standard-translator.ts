// The translator for the engine module with all instructions, with the compiler on the thread that runs the guest. Loaded only by machines that
// translate so: the instruction descriptions come with it.

import { INSTRUCTIONS } from "../../isa/table.ts";
import { RegionChecker } from "./check.ts";
import { compileOnSameThread } from "./same-thread.ts";
import { Translator, type TranslatorHost } from "./translator.ts";

/** Makes the translators of one machine's vCPUs. */
export function standardTranslator(): (host: TranslatorHost) => Translator {
  const compiler = compileOnSameThread({ instructions: INSTRUCTIONS });
  return (host) => new Translator(host, { compiler });
}

/** Makes what holds one of `every` executions of regions against the interpreter, for engine modules with a journal. */
export function regionChecker(every: number): () => RegionChecker {
  return () => new RegionChecker(every);
}

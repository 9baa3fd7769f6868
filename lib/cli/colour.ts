// Whether what goes to a stream is coloured: where a terminal shows it, or where it is asked for. CI alone asks for
// nothing: what it keeps is a log.
export function wantsColour(stream: { readonly isTTY?: boolean }, env: NodeJS.ProcessEnv): boolean {
  const { FORCE_COLOR, NO_COLOR, TERM } = env;
  if (FORCE_COLOR) return FORCE_COLOR !== '0';
  return stream.isTTY === true && !NO_COLOR && TERM !== 'dumb';
}

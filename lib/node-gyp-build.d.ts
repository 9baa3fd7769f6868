// node-gyp-build has no types of its own.
declare module 'node-gyp-build' {
  /** Loads the addon of the package whose root is `folder`: the fitting prebuilt one, or the one in build/. */
  export default function load(folder: string): unknown;
}

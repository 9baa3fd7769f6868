{
  "variables": {
    "liburing": "<!(sh native/liburing.sh)",
    "gnutls": "<!(sh native/has-header.sh gnutls/gnutls.h)",
    "libbpf": "<!(sh native/has-header.sh bpf/libbpf.h 'LIBBPF_MAJOR_VERSION >= 1')",
    "glibc": "<!(sh native/has-header.sh features.h 'defined(__GLIBC__)')"
  },
  "targets": [
    {
      "target_name": "stratamap_native",
      "sources": [
        "<!@(node -p \"Object.values(require('./native/sources.json')).flat().map((path) => 'native/' + path).join(' ')\")"
      ],
      "include_dirs": [
        "native",
        "native/host",
        "native/include",
        "<!(node -p \"require('node-addon-api').include_dir\")"
      ],
      "defines": ["NAPI_VERSION=9", "NAPI_CPP_EXCEPTIONS"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
      "cflags": ["-O2", "-fvisibility=hidden", "-Wno-missing-field-initializers"],
      "cflags_cc": ["-std=c++20", "-fexceptions", "-fvisibility-inlines-hidden"],
      "ldflags": ["-Wl,--exclude-libs,ALL"],
      "libraries": ["-ldl", "-pthread"],
      "configurations": {
        "Release": {
          "cflags!": ["-O3"]
        }
      },
      "conditions": [
        [
          # Other C libraries do not load such an addon.
          "glibc!=''",
          {
            "cflags": ["-ftls-model=initial-exec"]
          }
        ],
        [
          "liburing!=''",
          {
            "defines": ["SM_HAVE_URING=1"],
            "libraries": ["<(liburing)"]
          },
          {
            "defines": ["SM_HAVE_URING=0"]
          }
        ],
        [
          "gnutls!=''",
          {
            "defines": ["SM_HAVE_GNUTLS=1"]
          },
          {
            "defines": ["SM_HAVE_GNUTLS=0"]
          }
        ],
        [
          "libbpf!=''",
          {
            "defines": ["SM_HAVE_LIBBPF=1"]
          },
          {
            "defines": ["SM_HAVE_LIBBPF=0"]
          }
        ]
      ]
    }
  ]
}

# SPDX-License-Identifier: MIT
# Conan 2: a header library, with CMake's own package files, so that find_package(pipesched) means what it means after an install.
#
#   conan create cmake/packaging/conan -s compiler.cppstd=20                  the core and io, with fmt and nlohmann_json
#   conan create cmake/packaging/conan -s compiler.cppstd=20 -o '&:io=False'  the core, which needs the standard library only
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir

required_conan_version = ">=2.0"


class PipeschedRecipe(ConanFile):
    name = "pipesched"
    description = "Schedules of pipeline-parallel training: made, proven, costed, drawn and run"
    topics = ("pipeline-parallelism", "scheduling", "distributed-training", "header-only")
    license = "MIT"
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    options = {"io": [True, False]}
    default_options = {"io": True}

    @property
    def _root(self):
        return os.path.join(self.recipe_folder, "..", "..", "..")

    def set_version(self):
        header = load(self, os.path.join(self._root, "include", "pipesched", "version.hpp"))
        self.version = ".".join(re.findall(r"#define PIPESCHED_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", header))

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, src=self._root, dst=self.export_sources_folder)

    def requirements(self):
        if self.options.io:
            self.requires("fmt/[>=9 <13]", transitive_headers=True)
            self.requires("nlohmann_json/[>=3.11 <4]", transitive_headers=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def layout(self):
        cmake_layout(self)

    # One package for every compiler and setting; the option io alone makes another.
    def package_id(self):
        self.info.settings.clear()
        self.info.requires.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "BENCHES", "EXAMPLES"):
            toolchain.cache_variables[f"PIPESCHED_{part}"] = False
        toolchain.cache_variables["PIPESCHED_IO"] = bool(self.options.io)
        toolchain.generate()
        dependencies = CMakeDeps(self)
        dependencies.set_property("fmt", "cmake_config_version_compat", "AnyNewerVersion")  # as fmt's own package
        dependencies.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))
        rmdir(self, os.path.join(self.package_folder, "share", "doc"))

    def package_info(self):
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = ["lib/cmake/pipesched"]
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]

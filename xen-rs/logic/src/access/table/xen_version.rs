//! `xen_version`: which questions there are, and who may ask them.

use xen_abi::version::*;

operations! {
    /// A question about the hypervisor.
    VersionQuestion = "xen_version" in "version.h", others: Anyone ENOSYS;
    served {
        Version = XENVER_VERSION, Anyone;
        Extraversion = XENVER_EXTRAVERSION, Anyone;
        CompileInfo = XENVER_COMPILE_INFO, Anyone;
        Capabilities = XENVER_CAPABILITIES, Anyone;
        Changeset = XENVER_CHANGESET, Anyone;
        PlatformParameters = XENVER_PLATFORM_PARAMETERS, Anyone;
        GetFeatures = XENVER_GET_FEATURES, Anyone;
        Pagesize = XENVER_PAGESIZE, Anyone;
        GuestHandle = XENVER_GUEST_HANDLE, Anyone;
        CommandLine = XENVER_COMMANDLINE, Anyone, "others than the control domain read `<denied>`";
        BuildId = XENVER_BUILD_ID, Control;
    }
    refused {}
}

//! The closed list of root elements of IEEE 2030.5, and how a name is looked up byte by byte.

/// The global elements of the standard's schema, `sep.xsd` (version 2.2, of the edition of 2023, which has those of 2018),
/// and the list of suppliers that earlier ones have. In the order of their bytes, which [`Lookup`] needs.
pub(super) const ROOTS: [&str; 130] = [
    "AccountBalance",
    "AggregatedDevice",
    "AggregatedDeviceList",
    "AggregationPriority",
    "BillingPeriod",
    "BillingPeriodList",
    "BillingReading",
    "BillingReadingList",
    "BillingReadingSet",
    "BillingReadingSetList",
    "Configuration",
    "ConsumptionTariffInterval",
    "ConsumptionTariffIntervalList",
    "CreditRegister",
    "CreditRegisterList",
    "CurrentDERControls",
    "CustomerAccount",
    "CustomerAccountList",
    "CustomerAgreement",
    "CustomerAgreementList",
    "DER",
    "DERAvailability",
    "DERCapability",
    "DERComponent",
    "DERComponentList",
    "DERControl",
    "DERControlList",
    "DERControlResponse",
    "DERCurve",
    "DERCurveList",
    "DERList",
    "DERProgram",
    "DERProgramList",
    "DERSettings",
    "DERStatus",
    "DefaultDERControl",
    "DefaultDERControlResponse",
    "DemandResponseProgram",
    "DemandResponseProgramList",
    "DeviceCapability",
    "DeviceInformation",
    "DeviceStatus",
    "DrResponse",
    "EndDevice",
    "EndDeviceControl",
    "EndDeviceControlList",
    "EndDeviceList",
    "Error",
    "File",
    "FileList",
    "FileStatus",
    "FlowReservationRequest",
    "FlowReservationRequestList",
    "FlowReservationResponse",
    "FlowReservationResponseList",
    "FlowReservationResponseResponse",
    "FunctionSetAssignments",
    "FunctionSetAssignmentsList",
    "HistoricalReading",
    "HistoricalReadingList",
    "IPAddr",
    "IPAddrList",
    "IPInterface",
    "IPInterfaceList",
    "LLInterface",
    "LLInterfaceList",
    "LoadShedAvailability",
    "LoadShedAvailabilityList",
    "LogEvent",
    "LogEventList",
    "MessagingProgram",
    "MessagingProgramList",
    "MeterReading",
    "MeterReadingList",
    "MirrorMeterReading",
    "MirrorMeterReadingList",
    "MirrorUsagePoint",
    "MirrorUsagePointList",
    "Neighbor",
    "NeighborList",
    "Notification",
    "NotificationList",
    "PowerStatus",
    "PrepayOperationStatus",
    "Prepayment",
    "PrepaymentList",
    "PriceResponse",
    "PriceResponseCfg",
    "PriceResponseCfgList",
    "ProjectionReading",
    "ProjectionReadingList",
    "ProxiedDevice",
    "ProxiedDeviceList",
    "RPLInstance",
    "RPLInstanceList",
    "RPLSourceRoutes",
    "RPLSourceRoutesList",
    "RateComponent",
    "RateComponentList",
    "Reading",
    "ReadingList",
    "ReadingSet",
    "ReadingSetList",
    "ReadingType",
    "Registration",
    "Response",
    "ResponseList",
    "ResponseSet",
    "ResponseSetList",
    "SelfDevice",
    "ServiceSupplier",
    "ServiceSupplierList",
    "Subscription",
    "SubscriptionList",
    "SupplyInterruptionOverride",
    "SupplyInterruptionOverrideList",
    "SupportedLocale",
    "SupportedLocaleList",
    "TargetReading",
    "TargetReadingList",
    "TariffProfile",
    "TariffProfileList",
    "TextMessage",
    "TextMessageList",
    "TextResponse",
    "Time",
    "TimeTariffInterval",
    "TimeTariffIntervalList",
    "UsagePoint",
    "UsagePointList",
];

const _: () = assert!(is_sorted(&ROOTS), "the list is looked up by halves");

const fn is_sorted(names: &[&str]) -> bool {
    let mut index = 1;
    while index < names.len() {
        let (one, next) = (names[index - 1].as_bytes(), names[index].as_bytes());
        let mut at = 0;
        while at < one.len() && at < next.len() && one[at] == next[at] {
            at += 1;
        }
        if at == next.len() || (at < one.len() && one[at] > next[at]) {
            return false;
        }
        index += 1;
    }
    true
}

/// A name that comes byte by byte: the names of the list that begin so. Three bytes, whatever comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lookup {
    from: u8,
    to: u8,
    bytes: u8,
}

impl Lookup {
    /// Before the first byte: all of them.
    #[expect(clippy::cast_possible_truncation, reason = "the list is shorter than that, as is asserted below")]
    pub(super) const NEW: Self = Self { from: 0, to: ROOTS.len() as u8, bytes: 0 };

    /// With the next byte.
    pub(super) fn with(self, byte: u8) -> Self {
        let Self { from, to, bytes } = self;
        let names = ROOTS.get(usize::from(from)..usize::from(to)).unwrap_or_default();
        let at = |name: &&str| name.as_bytes().get(usize::from(bytes)).copied();
        let before = names.partition_point(|name| at(name) < Some(byte));
        let up_to = names.partition_point(|name| at(name) <= Some(byte));
        let place = |index: usize| from.saturating_add(u8::try_from(index).unwrap_or(u8::MAX));
        Self { from: place(before), to: place(up_to), bytes: bytes.saturating_add(1) }
    }

    /// The place in the list of the name that has ended, if it is there.
    pub(super) fn found(self) -> Option<u8> {
        // Of the names that begin so the shortest comes first.
        let name = ROOTS.get(usize::from(self.from)).filter(|_| self.from < self.to)?;
        (name.len() == usize::from(self.bytes)).then_some(self.from)
    }
}

const _: () = assert!(ROOTS.len() < 200, "places are counted in a byte");
